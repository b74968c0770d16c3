"""The requests of the published document, as they are printed there; only the base address is another."""

ADDRESS = "http://localhost:5000"
KEY = "your-api-key"

SUBMIT = """curl -X POST http://localhost:5000/api/tasks/submit \\
  -H "Authorization: Bearer your-api-key" \\
  -H "Content-Type: application/json" \\
  -d '{
    "repository_url": "https://github.com/user/repo.git",
    "description": "Add dark mode support to the application",
    "ticket_id": "FEAT-123",
    "ticket_summary": "add-dark-mode"
  }'"""

STATUS = """curl http://localhost:5000/api/tasks/550e8400-e29b-41d4-a716-446655440000/status \\
  -H "Authorization: Bearer your-api-key\""""
STATUS_ID = "550e8400-e29b-41d4-a716-446655440000"

LIST = """curl "http://localhost:5000/api/tasks?status=completed&limit=10" \\
  -H "Authorization: Bearer your-api-key\""""

HEALTH = "curl http://localhost:5000/health"

POLL = """# Submit task
TASK_ID=$(curl -X POST http://localhost:5000/api/tasks/submit \\
  -H "Authorization: Bearer your-api-key" \\
  -H "Content-Type: application/json" \\
  -d '{"repository_url": "...", "description": "..."}' \\
  | jq -r '.task_id')

# Poll for completion
while true; do
  STATUS=$(curl -s http://localhost:5000/api/tasks/$TASK_ID/status \\
    -H "Authorization: Bearer your-api-key" \\
    | jq -r '.status')
  
  if [ "$STATUS" = "completed" ] || [ "$STATUS" = "failed" ]; then
    break
  fi
  
  echo "Status: $STATUS"
  sleep 5
done

echo "Final status: $STATUS"
"""  # noqa: W293  as it is printed

SUBMISSION = {
    "repository_url": "https://github.com/user/repo.git",
    "description": "Add dark mode support to the application",
    "ticket_id": "FEAT-123",
    "ticket_summary": "add-dark-mode",
}
