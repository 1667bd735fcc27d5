"""Control: the operators' verbs, the same in Python, the admin, the dashboard and the commands.

Verbs that touch many messages work in batches of at most 1,000, each a transaction of its own, up
to what was there when they started. Each verb leaves a log line and, when ``by`` is a user, an
entry in the admin's history. ``using`` is the database alias that holds the messages.
"""

from ..store.filters import Filter, State
from . import kinds as _kinds  # noqa: F401 - registers them
from .asyncapi import asyncapi
from .beginning import (
    begin_cancel,
    begin_discard,
    begin_edit,
    begin_move,
    begin_purge,
    begin_redrive,
)
from .burial import dead_letter
from .deadletters import discard, purge_dead, redrive, redrive_all, redrive_queue
from .deletion import delete_queue, obstacle_to_deletion
from .diagnosing import Finding, Level, diagnose
from .editing import edit
from .explaining import Cause, Receiver, Why, explain, receivers
from .exporting import export_definitions
from .grouping import Group, groups
from .importing import Change, Imported, import_definitions
from .keys import parked, release_key, release_keys
from .leases import release_leases
from .looking import Found, Seen, peek, search
from .operating import cancel_operation, find_operation, operations, resume_operation
from .operating import run as run_operation
from .purging import ceiling, purge
from .queues import depth, disable, enable, find_queue, pause, resume, tell_workers
from .replaying import begin_replay, replay, snapshot
from .scheduled import cancel, cancel_message, retry_now
from .schedules import (
    find_schedule,
    next_runs,
    pause_schedule,
    resume_schedule,
    run_schedule,
    schedule_in_words,
)
from .schemas import add_schema, schemas, use_schema
from .seeking import Sought, begin_seek, seek
from .selecting import (
    Preview,
    cancel_matching,
    edit_matching,
    move,
    preview,
    purge_matching,
)
from .timeline import Caused, Event, Timeline, timeline
from .topics import topics
from .webhooks import disable_webhook, enable_webhook, find_webhook, obstacle_to_webhook

__all__ = [
    "Cause",
    "Caused",
    "Change",
    "Event",
    "Filter",
    "Finding",
    "Found",
    "Group",
    "Imported",
    "Level",
    "Preview",
    "Receiver",
    "Seen",
    "Sought",
    "State",
    "Timeline",
    "Why",
    "add_schema",
    "asyncapi",
    "begin_cancel",
    "begin_discard",
    "begin_edit",
    "begin_move",
    "begin_purge",
    "begin_redrive",
    "begin_replay",
    "begin_seek",
    "cancel",
    "cancel_matching",
    "cancel_message",
    "cancel_operation",
    "ceiling",
    "dead_letter",
    "delete_queue",
    "depth",
    "diagnose",
    "disable",
    "disable_webhook",
    "discard",
    "edit",
    "edit_matching",
    "enable",
    "enable_webhook",
    "explain",
    "export_definitions",
    "find_operation",
    "find_queue",
    "find_schedule",
    "find_webhook",
    "groups",
    "import_definitions",
    "move",
    "next_runs",
    "obstacle_to_deletion",
    "obstacle_to_webhook",
    "operations",
    "parked",
    "pause",
    "pause_schedule",
    "peek",
    "preview",
    "purge",
    "purge_dead",
    "purge_matching",
    "receivers",
    "redrive",
    "redrive_all",
    "redrive_queue",
    "release_key",
    "release_keys",
    "release_leases",
    "replay",
    "resume",
    "resume_operation",
    "resume_schedule",
    "retry_now",
    "run_operation",
    "run_schedule",
    "schedule_in_words",
    "schemas",
    "search",
    "seek",
    "snapshot",
    "tell_workers",
    "timeline",
    "topics",
    "use_schema",
]
