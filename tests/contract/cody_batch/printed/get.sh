curl -v https://api.cody-batch.example.com/jobs/job-123
