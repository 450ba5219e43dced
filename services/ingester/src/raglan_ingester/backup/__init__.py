"""Backups: everything that the ingester and the index hold, as a stream of records.

A document is copied whole: its row, its text, its bytes and exactly the chunks of this version,
whose ids follow from the row. So nothing has to stop while a backup is made, and it does not matter
how many ingesters and retrievers there are. One that changes in between is read again.
"""
