"""What clients ask of changesets once there is one: to be published, merged, closed or commented."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from services.contracts.model import FieldError, Model, Request, Text, refuse_blank
from services.contracts.words import MergeMethod, Publish


class PublishRequest(Request):
    publish: Annotated[Publish, Field(strict=False)] | None = Field(
        None, description="`pull_request`, `draft` or `branch`; default: as the job asked, else `pull_request`"
    )

    @model_validator(mode="after")
    def _is_published(self) -> PublishRequest:
        if self.publish is Publish.NONE:
            raise FieldError("publish", "`none` publishes nothing; choose `pull_request`, `draft` or `branch`")
        return self


class MergeRequest(Request):
    method: Annotated[MergeMethod, Field(strict=False)] = MergeMethod.MERGE
    delete_branch: bool = False


Comment = Annotated[Text, Field(min_length=1, max_length=65_000), AfterValidator(refuse_blank)]


class CloseRequest(Request):
    comment: Comment | None = None
    delete_branch: bool = False


class CommentRequest(Request):
    body: Comment
    in_reply_to: Annotated[str, Field(pattern=r"^[0-9]{1,20}$")] | None = Field(
        None, description="the forge's id of a review comment, to answer in its thread"
    )


class PostedComment(Model):
    id: str
    url: str
