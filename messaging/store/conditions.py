"""Conditions: what filters compile to, tested by the statement that places a message."""


def condition(headers: str, body: str) -> str:
    """Return the SQL that tells whether a ``binding`` takes a message with these columns.

    Without a filter that is a look at one NULL. jsonpath knows no addresses: only a filter with a
    network goes through a function that finds them first.
    """
    document = f"CASE WHEN binding.on_body THEN {body} ELSE {headers} END"
    return f"""
        CASE WHEN binding.condition IS NULL THEN true
             WHEN binding.networks IS NULL THEN ({document}) @@ binding.condition
             ELSE messaging_matches({document}, binding.condition, binding.networks) END
    """
