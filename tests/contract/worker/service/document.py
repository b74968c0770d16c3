"""The examples of the Worker's document about its service, as printed, and how answers are compared with them."""

from typing import Any

HEALTH: dict[str, Any] = {
    "status": "healthy",
    "timestamp": "2025-01-06T00:00:00.000Z",
    "uptime": 1234567890,
    "version": "1.0.0",
    "environment": "production",
    "components": {
        "durableObjects": {"status": "operational", "message": "string"},
        "containers": {"status": "operational", "message": "string"},
        "githubApp": {"status": "configured", "configured": True},
        "claudeConfig": {"status": "configured", "configured": True},
        "rateLimit": {"status": "configured", "configured": True},
    },
    "metrics": {
        "requests": {
            "total": 1000,
            "byRoute": {"/path": 100},
            "byStatus": {"200": 950, "500": 50},
            "successRate": 0.95,
        },
        "containers": {"active": 2, "total": 10, "errors": 1},
        "averageResponseTime": 150,
        "errorRate": 0.05,
    },
    "quota": {
        "dailyTokens": 50000,
        "maxDailyTokens": 1000000,
        "remainingTokens": 950000,
        "dailyCost": 2.50,
        "maxDailyCost": 50,
        "remainingCost": 47.50,
        "activeSessions": 1,
        "maxConcurrentSessions": 5,
        "allowed": True,
        "reason": "string",
    },
    "github": {
        "appId": "123456",
        "installationId": "789012",
        "repositoryCount": 5,
        "totalWebhooks": 100,
        "lastWebhookAt": "2025-01-06T00:00:00.000Z",
    },
}
METRICS: dict[str, Any] = {
    "requests": {"total": 1000, "byRoute": {"/webhooks/github": 500}, "byStatus": {"200": 950}},
    "containers": {"active": 2, "total": 10, "errors": 1},
    "averageResponseTime": 150,
    "deploymentStartTime": "2025-01-01T00:00:00.000Z",
    "uptime": 432000000,
    "version": "1.0.0",
    "webhookStats": {"totalWebhooks": 100, "lastWebhookAt": "2025-01-06T00:00:00.000Z"},
}
PROMETHEUS = """# HELP claude_code_requests_total Total number of requests
# TYPE claude_code_requests_total counter
claude_code_requests_total 1000

# HELP claude_code_containers_active Number of active containers
# TYPE claude_code_containers_active gauge
claude_code_containers_active 2

# HELP claude_code_average_response_time_ms Average response time in milliseconds
# TYPE claude_code_average_response_time_ms gauge
claude_code_average_response_time_ms 150.00
"""
STATUS: dict[str, Any] = {
    "github": {"configured": True, "appId": "2601422", "owner": "username", "repositoryCount": 5},
    "claude": {"configured": True, "setupAt": "2025-01-01T00:00:00.000Z"},
}
READ_BY_CLIENTS = {"githubAppConfigured": True, "claudeConfigured": True, "repositoryCount": 5}
ERROR = {"error": "ERROR_CODE", "message": "Human-readable error message", "timestamp": "2025-01-06T00:00:00.000Z"}
LIMIT_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
COUNTED = ("byRoute", "byStatus")
"""Whose keys are what was counted."""


def shape(value: Any, name: str = "") -> Any:
    """Names in their order, types and nesting; numbers are of one type, and so are times."""
    if name in COUNTED:
        return {shape(each) for each in value.values()}
    if isinstance(value, dict):
        return [(key, shape(each, key)) for key, each in value.items()]
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    is_time = isinstance(value, str) and len(value) == 24 and value[10] == "T" and value.endswith("Z")
    return "time" if is_time else type(value).__name__
