"""apt's sources with mirrors in place of the distribution's own archives."""

from __future__ import annotations


def mirror_sources(mirror: str, security_mirror: str | None, suite: str) -> str:
    """The lines that point `suite` at a mirror.

    Args:
        mirror: the URL of the main archive.
        security_mirror: the URL of the security archive; None for the one that is usually beside the main one.
        suite: such as `bookworm`.
    """
    main = mirror.rstrip("/")
    lines = [f"deb {main} {suite} main", f"deb {main} {suite}-updates main"]
    security = security_mirror or security_beside(main)
    if security:
        lines.append(f"deb {security.rstrip('/')} {suite}-security main")
    return "\n".join(lines) + "\n"


def security_beside(mirror: str) -> str | None:
    """The security archive of a mirror with the usual layout; None when the layout is another.

    Debian's security archive is usually mirrored as `…/debian-security` beside `…/debian`; Ubuntu's lies in the main
    archive.
    """
    mirror = mirror.rstrip("/")
    last = mirror.rpartition("/")[2]
    if last == "debian":
        return f"{mirror}-security"
    return mirror if last == "ubuntu" else None
