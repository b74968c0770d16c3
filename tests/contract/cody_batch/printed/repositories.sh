curl -v "https://api.cody-batch.example.com/repositories?page=1&perPage=10"
