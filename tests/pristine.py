"""Pristine: give the database back as the migrations left it, after a test that has committed.

Django truncates every table, which makes hundreds of files anew, and sends post_migrate, which
fills some of them again: a fifth of a second after each of eight hundred tests. Here rows are
deleted, and a copy of the first ones is put back, by the same ids. Where a test has left a lot
behind, or the role is no superuser, Django's way is taken.
"""

from typing import Any

from django.db import connection

# More than this takes longer to delete than to truncate, and would be in the way of the next test.
MOST_BYTES = 4 * 1024 * 1024
IS_SUPERUSER = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
COLUMNS = """
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
"""
SIZE = "SELECT sum(pg_relation_size(name::regclass)) FROM unnest(%s::text[]) AS name"


class Pristine:
    """The rows of a database when nothing but the migrations had run."""

    def __init__(self) -> None:
        self._tables = [
            connection.ops.quote_name(name)
            for name in connection.introspection.django_table_names(
                only_existing=True, include_views=False
            )
        ]
        with connection.cursor() as cursor:
            cursor.execute(IS_SUPERUSER)
            (self.is_possible,) = cursor.fetchone()
            if not self.is_possible:
                return
            # No trigger fires: what they would do is in the copy, too.
            restore = ["SET LOCAL session_replication_role = replica"]
            restore += [f"LOCK TABLE {', '.join(self._tables)} IN ACCESS EXCLUSIVE MODE"]
            restore += [f"DELETE FROM {table}" for table in self._tables]
            cursor.execute("DROP SCHEMA IF EXISTS pristine CASCADE; CREATE SCHEMA pristine")
            for table in self._tables:
                cursor.execute(f"SELECT EXISTS (SELECT FROM {table})")
                if cursor.fetchone()[0]:
                    restore.append(self._copy(cursor, table))
        self._restore = "; ".join(["BEGIN", *restore, "COMMIT"])

    def _copy(self, cursor: Any, table: str) -> str:
        """Copy a table's rows; return the statement that puts them back."""
        cursor.execute(f"CREATE TABLE pristine.{table} AS TABLE {table}")
        cursor.execute(COLUMNS, [table])
        (columns,) = cursor.fetchone()
        return f"INSERT INTO {table} ({columns}) SELECT {columns} FROM pristine.{table}"

    def restore(self) -> bool:
        """Give the rows back; return False, and do nothing, where Django's way is better."""
        if not self.is_possible:
            return False
        with connection.cursor() as cursor:
            cursor.execute(SIZE, [self._tables])
            if cursor.fetchone()[0] > MOST_BYTES:
                return False
            cursor.execute(self._restore)
        return True
