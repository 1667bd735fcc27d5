"""Webhooks: send the messages of a queue to a URL, each signed (Standard Webhooks).

    find            sign           send            judge
   serving.py  -> signing.py -> sending.py  ->  delivering.py, with breaker.py
   the rows       the body      the request     what the answer means

A webhook is the consumer of its queue: an async one, whose effects are outside of the database. So
a message is sent at least once, and always with the same ``webhook-id``.
"""
