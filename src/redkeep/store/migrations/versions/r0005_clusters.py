"""Clusters, which of their shards an instance belongs to, and the availability zones of hosts."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("instances") as instances:
        instances.add_column(sa.Column("shard", sa.Text(), nullable=True))
        instances.add_column(sa.Column("node_id", sa.Text(), nullable=True))
    with op.batch_alter_table("hosts") as hosts:
        # The default stays: while managers are upgraded one by one, those of the release before write without it.
        hosts.add_column(sa.Column("zone", sa.Text(), nullable=False, server_default=""))
    op.create_table(
        "clusters",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.Column("replicas_per_shard", sa.Integer(), nullable=False),
        sa.Column("formed", sa.Boolean(), nullable=False),
        sa.Column("members_made", sa.Integer(), nullable=False),
        sa.Column("configuration_id", sa.Text(), nullable=True),
        sa.Column("fault", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["id"], ["groups.id"], name="fk_clusters_id"),
        sa.PrimaryKeyConstraint("id", name="pk_clusters"),
    )
    op.create_index(
        "ix_clusters_project_id",
        "clusters",
        ["project_id"],
        sqlite_where=sa.text("deleted = 0"),
        postgresql_where=sa.text("NOT deleted"),
    )
