"""Sign: what a message is as a request, signed as Standard Webhooks says."""

import datetime
import json

from ..messages import Message


def body_of(message: Message) -> str:
    """Return the JSON that is sent: ``type`` is the topic, or the queue where there is none."""
    content = {
        "type": message.topic or message.queue,
        "timestamp": message.published_at.isoformat(),
        "data": message.body,
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def signed(message: Message, body: str, keys: list[bytes]) -> dict[str, str]:
    """Return the headers of a request: one signature by each key, so that keys can be changed.

    The id is the same each time a message is sent; the timestamp is that of this request.
    """
    from standardwebhooks import Webhook

    webhook_id = f"msg_{message.id}"
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    signatures = [Webhook(key).sign(webhook_id, now, body) for key in keys]
    return {
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
