"""The sites of hosts and instances."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("hosts", "instances"):
        with op.batch_alter_table(table) as changed:
            # The default stays: while managers are upgraded one by one, those of the release before write without it.
            changed.add_column(sa.Column("site", sa.Text(), nullable=False, server_default="default"))
