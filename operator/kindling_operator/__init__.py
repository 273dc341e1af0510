"""The operator: the three kinds, made into pods on Kubernetes."""
