"""Store: PostgreSQL, the only place with SQL; one statement above one function."""
