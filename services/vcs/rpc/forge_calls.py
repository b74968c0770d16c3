"""The calls about a forge: its repositories, what a person may do there, and the changesets that were published."""

from collections.abc import AsyncIterator
from uuid import UUID

from services.contracts.v1 import vcs_pb2, vcs_pb2_grpc
from services.vcs.forges import ChangeStatus, FailedCheck, ForgeRepository, Issue
from services.vcs.git.repositories import parse_repository
from services.vcs.rpc import fields
from services.vcs.rpc.parts import Parts
from services.vcs.rpc.statuses import Context, reported


class ForgeCalls(vcs_pb2_grpc.VcsServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def ListRepositories(  # noqa: N802 - the proto names it
        self, request: vcs_pb2.ListRepositoriesRequest, context: Context
    ) -> AsyncIterator[vcs_pb2.ForgeRepository]:
        async with reported(context):
            query = fields.repository_query(request)
            async for repository in self._parts.forges.listing().repositories(query):
                yield _repository(repository)

    async def GetPermission(  # noqa: N802
        self, request: vcs_pb2.GetPermissionRequest, context: Context
    ) -> vcs_pb2.GetPermissionReply:
        async with reported(context):
            login = fields.login("login", request.login)
            repository = parse_repository(request.repository, allow_local=self._parts.allow_local)
            permission = await self._parts.forges.of(repository).permission(repository, login)
            return vcs_pb2.GetPermissionReply(permission=permission)

    async def GetIssue(self, request: vcs_pb2.GetIssueRequest, context: Context) -> vcs_pb2.Issue:  # noqa: N802
        async with reported(context):
            number = fields.issue_number("number", request.number)
            repository = parse_repository(request.repository, allow_local=self._parts.allow_local)
            return _issue(await self._parts.forges.of(repository).issue(repository, number))

    async def GetFailedChecks(  # noqa: N802
        self, request: vcs_pb2.GetFailedChecksRequest, context: Context
    ) -> vcs_pb2.GetFailedChecksReply:
        async with reported(context):
            sha = fields.sha_of("sha", request.sha)
            repository = parse_repository(request.repository, allow_local=self._parts.allow_local)
            failed = await self._parts.forges.of(repository).failed_checks(repository, sha)
            return vcs_pb2.GetFailedChecksReply(checks=[_check(check) for check in failed])

    async def SetUpApp(self, request: vcs_pb2.SetUpAppRequest, context: Context) -> vcs_pb2.AppInfo:  # noqa: N802
        async with reported(context):
            made = await self._parts.apps.set_up(fields.manifest_code("code", request.code))
            return vcs_pb2.AppInfo(
                app_id=made.id, slug=made.slug, name=made.name, owner=made.owner.login, url=made.html_url
            )

    async def LookUpChangeset(  # noqa: N802
        self, request: vcs_pb2.LookUpChangesetRequest, context: Context
    ) -> vcs_pb2.ChangesetStatus:
        async with reported(context):
            changeset = _changeset(request.changeset_id)
            return _status(changeset, await self._parts.changesets.look_up(changeset))

    async def CloseChangeset(  # noqa: N802
        self, request: vcs_pb2.CloseChangesetRequest, context: Context
    ) -> vcs_pb2.ChangesetStatus:
        async with reported(context):
            changeset = _changeset(request.changeset_id)
            comment = fields.comment_body("comment", request.comment, may_be_empty=True)
            closed = await self._parts.changesets.close(changeset, comment, delete_branch=request.delete_branch)
            return _status(changeset, closed)

    async def ReopenChangeset(  # noqa: N802
        self, request: vcs_pb2.ReopenChangesetRequest, context: Context
    ) -> vcs_pb2.ChangesetStatus:
        async with reported(context):
            changeset = _changeset(request.changeset_id)
            return _status(changeset, await self._parts.changesets.reopen(changeset))

    async def MergeChangeset(  # noqa: N802
        self, request: vcs_pb2.MergeChangesetRequest, context: Context
    ) -> vcs_pb2.ChangesetStatus:
        async with reported(context):
            changeset = _changeset(request.changeset_id)
            method = fields.merge_method(request.method)
            merged = await self._parts.changesets.merge(changeset, method, delete_branch=request.delete_branch)
            return _status(changeset, merged)

    async def Comment(self, request: vcs_pb2.CommentRequest, context: Context) -> vcs_pb2.CommentReply:  # noqa: N802
        async with reported(context):
            changeset = _changeset(request.changeset_id)
            body = fields.comment_body("body", request.body)
            in_reply_to = fields.comment_id("in_reply_to", request.in_reply_to)
            posted = await self._parts.changesets.comment(changeset, body, in_reply_to=in_reply_to)
            return vcs_pb2.CommentReply(id=posted.id, url=posted.url)


def _changeset(text: str) -> UUID:
    return fields.uuid_of("changeset_id", text)


def _repository(repository: ForgeRepository) -> vcs_pb2.ForgeRepository:
    return vcs_pb2.ForgeRepository(
        full_name=repository.full_name,
        clone_url=repository.clone_url,
        default_branch=repository.default_branch,
        description=repository.description,
        is_private=repository.is_private,
        is_archived=repository.is_archived,
        is_fork=repository.is_fork,
        topics=repository.topics,
        language=repository.language,
        size_kb=repository.size_kb,
    )


def _issue(issue: Issue) -> vcs_pb2.Issue:
    return vcs_pb2.Issue(
        number=issue.number,
        title=issue.title,
        body=issue.body,
        state=issue.state,
        author=issue.author,
        labels=issue.labels,
        is_pull_request=issue.is_pull_request,
        comments=[
            vcs_pb2.IssueComment(id=one.id, author=one.author, body=one.body, time=int(one.time.timestamp()))
            for one in issue.comments
        ],
        url=issue.url,
    )


def _check(check: FailedCheck) -> vcs_pb2.FailedCheck:
    return vcs_pb2.FailedCheck(
        name=check.name, conclusion=check.conclusion, title=check.title, summary=check.summary, url=check.url
    )


def _status(changeset_id: UUID, status: ChangeStatus) -> vcs_pb2.ChangesetStatus:
    return vcs_pb2.ChangesetStatus(
        changeset_id=str(changeset_id),
        state=status.state,
        is_draft=status.is_draft,
        url=status.url,
        head_sha=status.head_sha,
        checks=status.checks,
        review=status.review,
        mergeable=status.mergeable,
        merge_sha=status.merge_sha,
    )
