"""The store in S3: AWS, or any server that speaks its protocol and keeps its conditional writes."""
