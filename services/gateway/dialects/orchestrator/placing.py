"""Finds for whom a job is and in which repository, or says which field is wrong."""

from __future__ import annotations

from uuid import UUID

from services.gateway.dialects.orchestrator.models import CreateJob, JobType
from services.gateway.dialects.orchestrator.translation import Place
from services.gateway.problems import FieldProblemError
from services.jobs.customers import Customer, Customers, KeptRepository
from services.jobs.errors import NotFoundError
from services.jobs.models import Client


async def place_of(customers: Customers, client: Client, wanted: CreateJob) -> Place:
    """Raises ``FieldProblemError``, ``StoreUnavailableError``."""
    full_name = _full_name(wanted)
    if wanted.client_id is None and full_name is None:
        raise FieldProblemError("clientId", "is required, or both githubOrg and githubRepo are")
    if wanted.client_id is not None:
        customer = await _customer(customers, client, wanted.client_id)
        repository = _named(customer, full_name) if full_name is not None else None
    else:
        customer, repository = await _by_name(customers, client, full_name or "")
    if wanted.repository_id is not None:
        repository = _own(customer, wanted.repository_id)
    repository = repository or next(iter(customer.repositories), None)
    if repository is None and wanted.job_type is not JobType.TASK:
        raise FieldProblemError("clientId", "the client has no repository: add one by POST /clients/:id/repository")
    return Place(customer, repository)


def _full_name(wanted: CreateJob) -> str | None:
    if (wanted.github_org is None) != (wanted.github_repo is None):
        missing = "githubOrg" if wanted.github_org is None else "githubRepo"
        raise FieldProblemError(missing, "is required: githubOrg and githubRepo are given together")
    return f"{wanted.github_org}/{wanted.github_repo}" if wanted.github_org is not None else None


async def _customer(customers: Customers, client: Client, customer_id: UUID) -> Customer:
    try:
        return await customers.one(client, customer_id)
    except NotFoundError as error:
        raise FieldProblemError("clientId", str(error)) from error


async def _by_name(customers: Customers, client: Client, full_name: str) -> tuple[Customer, KeptRepository]:
    found = await customers.named(client, full_name)
    if found is None:
        raise FieldProblemError("githubRepo", f"no client has the repository {full_name}")
    return found


def _named(customer: Customer, full_name: str) -> KeptRepository:
    for repository in customer.repositories:
        if repository.full_name.casefold() == full_name.casefold():
            return repository
    raise FieldProblemError("githubRepo", f"the client has no repository {full_name}")


def _own(customer: Customer, repository_id: UUID) -> KeptRepository:
    for repository in customer.repositories:
        if repository.id == repository_id:
            return repository
    raise FieldProblemError("repositoryId", f"the client has no repository {repository_id}")
