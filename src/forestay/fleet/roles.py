"""What a person may do on the admin API: one table from roles to permissions.

Every admin route names one permission (`gateway/admin`). A key with the scope ADMIN acts as `admin`. Pure.
"""

import enum
from collections.abc import Mapping


class Role(enum.StrEnum):
    """What a person is here."""

    VIEWER = "viewer"
    ANALYST = "analyst"
    OPERATOR = "operator"
    ADMIN = "admin"


class Permission(enum.StrEnum):
    """What an admin route asks for."""

    OWN = "own"  # one's own session and password
    READ = "read"  # how the fleet stands, who did what
    READ_CONTENT = "read_content"  # what callers were answered
    SAFETY = "safety"  # verdicts, policies, standings, appeals, reports
    OPERATE = "operate"  # deploy, freeze, modes, cancel, retry
    ADMINISTER = "administer"  # keys, tenants, people


PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset({Permission.OWN, Permission.READ}),
    Role.ANALYST: frozenset({Permission.OWN, Permission.READ, Permission.READ_CONTENT, Permission.SAFETY}),
    Role.OPERATOR: frozenset({Permission.OWN, Permission.READ, Permission.READ_CONTENT, Permission.OPERATE}),
    Role.ADMIN: frozenset(Permission),
}


def allows(role: Role, permission: Permission) -> bool:
    """Tell whether the role holds the permission."""
    return permission in PERMISSIONS[role]
