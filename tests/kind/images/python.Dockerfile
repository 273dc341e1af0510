# Stands in for Docker Hub's python:3.11-slim-bookworm, under its name; with this machine's certificates and pip settings.
FROM localhost/python:3.11-slim-bookworm
COPY certificates.pem /etc/ssl/certs/ca-certificates.crt
COPY pip.conf /etc/pip.conf
