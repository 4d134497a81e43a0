"""A repository in an S3 bucket; the only place that knows boto3. `backend` stores, `versions` reads the past."""
