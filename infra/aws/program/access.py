"""What holds for the roles of all tasks, in every region."""

from __future__ import annotations

import pulumi_aws as aws

from infra.aws import permissions
from infra.aws.program.here import Here, Part, policy


class Access(Part):
    def __init__(self, here: Here) -> None:
        super().__init__(here, "Access")
        self.boundary = aws.iam.Policy(
            self.called("boundary"),
            name=here.names.boundary(),
            description="What no task may ever do",
            policy=policy(*permissions.boundary(here.platform, here.account)),
            opts=self.inside(),
        )
        self.register_outputs({})
