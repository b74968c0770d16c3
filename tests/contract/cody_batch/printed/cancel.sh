curl -v -X POST https://api.cody-batch.example.com/jobs/job-123/cancel
