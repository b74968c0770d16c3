curl -v https://api.cody-batch.example.com/jobs/job-123/repositories/liamzdenek%2Frepo1/diff
