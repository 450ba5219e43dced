"""Documents that wait for a job which will not come."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from raglan_ingester.model import Document, DocumentState, Item, ItemState, Job, JobState


def fail_stranded(session: Session) -> int:
    """Settle what still waits although its job has ended or is forgotten; how many documents."""
    error = "Its job ended before this document was ingested; send it again."
    unfinished = sa.select(Job.id).where(Job.state.in_([JobState.QUEUED, JobState.RUNNING]))
    session.execute(
        sa.update(Item)
        .where(Item.state == ItemState.QUEUED, Item.job_id.not_in(unfinished))
        .values(state=ItemState.FAILED, error=error)
        .execution_options(synchronize_session=False)
    )
    stranded = session.execute(
        sa.update(Document)
        .where(Document.state == DocumentState.QUEUED, Document.job_id.not_in(unfinished))
        .values(state=DocumentState.FAILED, error=error)
        .execution_options(synchronize_session=False)
    )
    return int(stranded.rowcount)  # type: ignore[attr-defined]
