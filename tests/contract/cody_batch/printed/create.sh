curl -v https://api.cody-batch.example.com/jobs \
  -H "Content-Type: application/json" \
  -d '{
    "name": "Update code patterns",
    "description": "Apply a specific code change across repositories",
    "type": "code-pattern-update",
    "prompt": "You are an expert software engineer. Your task is to update all instances of deprecated API calls to use the new format. Replace all occurrences of '\''oldFunction(param)'\'' with '\''newFunction(param, { version: 2 })'\''.",
    "repositories": [
      "liamzdenek/repo1",
      "liamzdenek/repo2"
    ],
    "createPullRequests": true
  }'
