"""What the published document prints: requests as they are there, and the fields of its answers."""

ADDRESS = "http://localhost:3456"
CLIENT_ID = "14cddf8f-ce78-4b49-9eb4-9d17a7d1f568"

CODE_JOB = """curl -X POST http://localhost:3456/jobs \\
  -H "Authorization: Bearer $SECRET" \\
  -H "Content-Type: application/json" \\
  -d '{
    "clientId": "14cddf8f-ce78-4b49-9eb4-9d17a7d1f568",
    "prompt": "Add a logout button to the header",
    "branchName": "feature/logout-button",
    "jobType": "code"
  }'"""

POLL_CODE_JOB = """curl "http://localhost:3456/jobs/JOB_ID" \\
  -H "Authorization: Bearer $SECRET\""""

TASK_JOB = """curl -X POST http://localhost:3456/jobs \\
  -H "Authorization: Bearer $SECRET" \\
  -H "Content-Type: application/json" \\
  -d '{
    "clientId": "14cddf8f-ce78-4b49-9eb4-9d17a7d1f568",
    "prompt": "Can you spec me a feature for this client?",
    "jobType": "task"
  }'"""

POLL_TASK_JOB = """curl "http://localhost:3456/jobs/abc123?includeMessages=true" \\
  -H "Authorization: Bearer $SECRET\""""

SEND_MESSAGE = """curl -X POST http://localhost:3456/jobs/abc123/message \\
  -H "Authorization: Bearer $SECRET" \\
  -H "Content-Type: application/json" \\
  -d '{"message": "I want an analytics dashboard feature"}'"""

COMPLETE = """curl -X POST http://localhost:3456/jobs/abc123/complete \\
  -H "Authorization: Bearer $SECRET\""""

ADD_REPOSITORY = {"githubOrg": "owner-name", "githubRepo": "repo-name", "defaultBranch": "main"}

CREATE_JOB = {
    "clientId": "uuid",
    "prompt": "Your task description...",
    "branchName": "feature-x",
    "jobType": "code",
    "featureId": "uuid",
    "repositoryId": "uuid",
    "title": "Job title",
    "createdByTeamMemberId": "uuid",
}
MESSAGE = {"message": "Your response to Claude's question"}

REPOSITORY = ["id", "owner_name", "repo_name", "default_branch"]
LISTED_CLIENT = ["id", "name", "repositories"]
CLIENT = ["id", "name", "repository"]
JOB = ["id", "status", "job_type", "prompt", "branch_name", "client", "feature", "repository"]
CREATED_JOB = ["id", "status", "position", "branchName", "createdAt"]
CANCELLED_JOB = ["id", "status", "wasRunning"]
RETRIED_JOB = ["id", "originalJobId", "status", "branchName"]
HEALTH = ["status", "queue", "claude", "git"]
QUEUE = ["running", "queued", "maxConcurrent"]
