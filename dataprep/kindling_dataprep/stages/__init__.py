"""The stages of a build: each reads files and writes files, and leaves thinking to `steps`."""
