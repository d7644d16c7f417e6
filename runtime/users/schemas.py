"""Users on the wire."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from runtime import emails, passwords
from runtime.errors import Invalid
from runtime.users import rules
from runtime.wire import Text


def _normal(email: str) -> str:
    try:
        return emails.normal(email)
    except Invalid as error:
        raise ValueError(error.detail) from error


Email = Annotated[str, StringConstraints(max_length=emails.LIMIT), AfterValidator(_normal)]
Password = Annotated[
    SecretStr,
    Field(min_length=passwords.MINIMUM, max_length=passwords.MAXIMUM),
]
CurrentPassword = Annotated[SecretStr, Field(max_length=passwords.MAXIMUM)]
Role = Literal["user", "admin"]


class NewUser(BaseModel):
    model_config = ConfigDict(extra="forbid")

    email: Email
    name: Text
    password: Password


class UserChange(BaseModel):
    """What is absent stays as it is. `password` needs `current_password`; `role` needs an admin."""

    model_config = ConfigDict(extra="forbid")

    name: Text | None = None
    password: Password | None = None
    current_password: CurrentPassword | None = None
    role: Role | None = None


class User(BaseModel):
    id: str
    email: str
    name: str
    role: Role
    created_at: str


class UserPage(BaseModel):
    """`next` is the `cursor` of the following page; null on the last."""

    users: list[User]
    next: str | None


def document(user: rules.User) -> dict[str, str]:
    return {
        "id": str(user.id),
        "email": user.email,
        "name": user.name,
        "role": user.role,
        "created_at": user.created_at.isoformat(),
    }
