"""Describe the queues and topics as an AsyncAPI document, for those who publish and consume."""

from typing import Any

from .. import conf
from ..models import Queue, Subscription, Topic

VERSION = "3.1.0"
# Policies of a queue that matter to who sends to it or consumes it.
POLICIES = ("max_deliveries", "visibility_timeout", "message_ttl", "max_length", "retention")


def asyncapi(*, using: str | None = None) -> dict[str, Any]:
    """Return an AsyncAPI 3.1 document of all queues, topics, subscriptions and schemas.

    Policies are in ``x-messaging-`` extensions, and so are the subscriptions: of all patterns, and
    with their filters at the operation that receives from a queue. Bodies of topics with a schema
    have the version that counts; any other body is any JSON value.
    """
    alias = using or conf.DATABASE
    document: dict[str, Any] = {
        "asyncapi": VERSION,
        "info": {"title": "Messages", "version": "1.0.0"},
        "defaultContentType": "application/json",
        "channels": {},
        "operations": {},
        "components": {"messages": {}, "schemas": {}},
    }
    for queue in Queue.objects.using(alias).order_by("name"):
        policies = {name: getattr(queue, name) for name in POLICIES}
        _add(document, "queue", queue, {}, {"x-messaging-policies": policies})
    goes_to: dict[str, list[str]] = {}
    subscriptions = Subscription.objects.using(alias).filter(is_active=True)
    for subscription in subscriptions.select_related("queue").order_by("pattern", "queue__name"):
        goes_to.setdefault(subscription.pattern, []).append(subscription.queue.name)
        receive = document["operations"][f"receive-queue-{subscription.queue.name}"]
        receive.setdefault("x-messaging-subscriptions", []).append(_described(subscription))
    for topic in Topic.objects.using(alias).select_related("schema").order_by("name"):
        schema = topic.schema.document if topic.schema else {}
        more: dict[str, Any] = {"x-messaging-policies": {"retention": topic.retention}}
        if topic.schema:
            more["x-messaging-schema-version"] = topic.schema.version
        _add(document, "topic", topic, schema, more)
    document["x-messaging-subscriptions"] = goes_to
    return document


def _described(subscription: Subscription) -> dict[str, Any]:
    """Return which messages a subscription brings to its queue."""
    brought: dict[str, Any] = {"pattern": subscription.pattern}
    if subscription.filter is not None:
        brought["x-filter"] = subscription.filter
        brought["x-filter-scope"] = subscription.filter_scope
    return brought


def _add(
    document: dict[str, Any], kind: str, row: Queue | Topic, schema: Any, more: dict[str, Any]
) -> None:
    """Add a channel with its message, and what one does with it."""
    # A queue and a topic may have the same name.
    key = f"{kind}-{row.name}"
    document["components"]["schemas"][key] = {
        "schemaFormat": "application/schema+json;version=draft-2020-12",
        "schema": _moved(schema, f"#/components/schemas/{key}/schema"),
    }
    document["components"]["messages"][key] = {
        "name": row.name,
        "payload": {"$ref": f"#/components/schemas/{key}"},
    }
    channel = {"address": row.name, "messages": {"body": {"$ref": f"#/components/messages/{key}"}}}
    if row.description:
        channel["description"] = row.description
    document["channels"][key] = channel | {"x-messaging-kind": kind} | more
    acts = {"send": "send"} if kind == "topic" else {"send": "send", "receive": "receive"}
    for act in acts:
        document["operations"][f"{act}-{key}"] = {
            "action": act,
            "channel": {"$ref": f"#/channels/{key}"},
        }


def _moved(schema: Any, place: str) -> Any:
    """Return a schema whose references lead to where it is put."""
    if isinstance(schema, list):
        return [_moved(each, place) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: f"{place}{part[1:]}"
        if name == "$ref" and isinstance(part, str)
        else _moved(part, place)
        for name, part in schema.items()
    }
