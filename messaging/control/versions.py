"""Versions: what an import says of the schemas of topics."""

from ..exceptions import InvalidDefinitions, InvalidSchema
from ..models import Schema, Topic
from .definitions import Definition
from .history import Operator, enter, name_of

# The largest number of a version, whose successor is one as well.
LARGEST = 1_000_000_000


def add_version(definition: Definition, by: Operator, alias: str, created: list[str]) -> Schema:
    """Add a version that is not there yet, after those that are; refuse to change one."""
    # Whoever has no schemas need not have loaded this.
    from ..schemas import check_document, is_same

    document, number = definition.values.get("document"), definition.values["version"]
    if not 1 <= number <= LARGEST:
        reason = f"{number} is not at least 1 and at most {LARGEST:,}"
        raise InvalidDefinitions(f"{definition.place}, version", reason)
    try:
        check_document(document)
    except InvalidSchema as error:
        reason = f"at {error.path}: {error.reason}"
        raise InvalidDefinitions(f"{definition.place}, document", reason) from error
    topic = _locked(definition, alias)
    known = {each.version: each for each in topic.schemas.all()}
    if number in known:
        if not is_same(known[number].document, document):
            raise InvalidDefinitions(
                f"{definition.place}, document",
                f"version {number} of topic {topic.name!r} is there and says something else, and "
                f"no version ever changes: import this one as version {max(known) + 1}",
            )
        return known[number]
    if known and number < max(known):
        raise InvalidDefinitions(
            f"{definition.place}, version",
            f"topic {topic.name!r} has version {max(known)} already: a new one comes after it",
        )
    added = topic.schemas.create(version=number, document=document, created_by=name_of(by)[:150])
    created.append(definition.what)
    enter(by, topic, f"Imported: schema version {number}.")
    return added


def version_of(definition: Definition, topic: Topic) -> Schema | None:
    """Return the version that counts by the definition of a topic."""
    number = definition.values["schema"]
    if number is None:
        return None
    found = topic.schemas.filter(version=number).first()
    if found is None:
        raise InvalidDefinitions(
            f"{definition.place}, schema", f"version {number} is neither defined nor there"
        )
    return found


def _locked(definition: Definition, alias: str) -> Topic:
    name = definition.values["topic"]
    rows = Topic.objects.using(alias).select_for_update(of=("self",)).filter(name=name)
    topic = rows.first()
    if topic is None:
        raise InvalidDefinitions(
            f"{definition.place}, topic", f"topic {name[:80]!r} is neither defined nor there"
        )
    return topic
