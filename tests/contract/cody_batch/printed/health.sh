curl -v https://api.cody-batch.example.com/health
