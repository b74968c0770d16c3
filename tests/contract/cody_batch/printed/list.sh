curl -v "https://api.cody-batch.example.com/jobs?page=1&perPage=10"
