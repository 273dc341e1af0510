"""Version v1alpha1 of the three kinds, their status, the run file, and the manifests of their products."""
