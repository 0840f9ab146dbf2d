"""Configuration groups, and what an instance has of them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("instances") as instances:
        instances.add_column(sa.Column("configuration_id", sa.Text(), nullable=True))
        instances.add_column(sa.Column("parameters", sa.JSON(), nullable=False, server_default="[]"))
        proven = '{"configuration_id": null, "parameters": []}'
        instances.add_column(sa.Column("proven", sa.JSON(), nullable=False, server_default=proven))
    with op.batch_alter_table("instances") as instances:
        instances.alter_column("parameters", server_default=None)
        instances.alter_column("proven", server_default=None)
    op.create_index(
        "ix_instances_configuration_id",
        "instances",
        ["configuration_id"],
        sqlite_where=sa.text("deleted = 0"),
        postgresql_where=sa.text("NOT deleted"),
    )
    op.create_table(
        "configurations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_configurations"),
    )
    op.create_index("ix_configurations_project_id", "configurations", ["project_id"])
