"""Add versions of a topic's schema, and say which of them counts."""

from typing import Any

from django.db import transaction

from .. import conf
from ..exceptions import InvalidOption, UnknownTopic
from ..models import Schema, Topic
from ..names import check_topic_name
from ..store.connection import connection_for
from ..store.publishing import known_names
from .history import Operator, enter, log, name_of


def add_schema(topic: str, document: Any, *, by: Operator = "", using: str | None = None) -> Schema:
    """Add a version of a topic's schema and return it; the newest one, when it is the same.

    It counts for nothing until :func:`use_schema` says so. InvalidSchema and IncompatibleSchema
    have the path and the reason; the topic's ``compatibility`` is with the newest version.
    """
    # Whoever has no schemas need not have loaded this.
    from ..schemas import check_compatible, check_document, is_same

    check_document(document)
    with transaction.atomic(using=using or conf.DATABASE):
        row = _locked(topic, using)
        last = row.schemas.order_by("-version").first()
        if last is not None and is_same(last.document, document):
            return last
        if last is not None:
            check_compatible(last.document, document, row.compatibility)
        added = Schema.objects.using(using or conf.DATABASE).create(
            topic=row,
            version=last.version + 1 if last else 1,
            document=document,
            created_by=name_of(by)[:150],
        )
        enter(by, row, f"Schema version {added.version} added.")
    log("Schema added", by, topic=row.name, version=added.version)
    return added


def schemas(topic: str, *, using: str | None = None) -> list[Schema]:
    """Return the versions of a topic's schema, newest first."""
    row = _found(topic, using)
    return list(row.schemas.order_by("-version"))


def use_schema(
    topic: str, version: int | None, *, by: Operator = "", using: str | None = None
) -> bool:
    """Have bodies fulfil a version from now on, None: no schema; return whether that is new.

    What was published before stays as it is.
    """
    with transaction.atomic(using=using or conf.DATABASE):
        row = _locked(topic, using)
        wanted = None
        if version is not None:
            wanted = row.schemas.filter(version=version).first()
            if wanted is None:
                known = ", ".join(str(each.version) for each in schemas(topic, using=using)[:10])
                raise InvalidOption("version", version, f"versions of {topic!r}: {known or 'none'}")
        if row.schema_id == (wanted and wanted.pk):
            return False
        row.schema = wanted
        row.save(update_fields=["schema"])
        enter(by, row, f"Schema version {version} is used." if version else "No schema is used.")
    log("Schema used", by, topic=row.name, version=version)
    return True


def _locked(topic: str, using: str | None) -> Topic:
    return _found(topic, using, lock=True)


def _found(topic: str, using: str | None, *, lock: bool = False) -> Topic:
    rows = Topic.objects.using(using or conf.DATABASE).filter(name=check_topic_name(topic))
    found = (rows.select_for_update(of=("self",)) if lock else rows).first()
    if found is None:
        raise UnknownTopic(topic, known_names(connection_for(using), True))
    return found
