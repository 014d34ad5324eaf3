"""What a key may do, its rotation, and a count of changes that gateways watch."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, and the one row that counts changes."""
    with op.batch_alter_table("api_keys") as table:
        table.add_column(sa.Column("role", sa.String(16), nullable=False, server_default="member"))
        table.add_column(sa.Column("disabled_at", sa.DateTime(timezone=True)))
        table.add_column(sa.Column("rotated_at", sa.DateTime(timezone=True)))
        table.add_column(sa.Column("previous_digest", sa.LargeBinary(32)))
        table.add_column(sa.Column("previous_pepper_version", sa.String(16)))
        table.add_column(sa.Column("previous_expires_at", sa.DateTime(timezone=True)))
        table.add_column(sa.Column("previous_used_at", sa.DateTime(timezone=True)))
        table.add_column(sa.Column("models", sa.JSON(none_as_null=True)))
        table.add_column(sa.Column("endpoints", sa.JSON(none_as_null=True)))
        table.add_column(sa.Column("networks", sa.JSON(none_as_null=True)))
        table.add_column(sa.Column("limits", sa.String(200)))
        table.add_column(sa.Column("change", sa.BigInteger(), nullable=False, server_default="0"))
        table.create_index("ix_api_keys_change", ["change"])
    changes = op.create_table(
        "key_changes",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("last", sa.BigInteger(), nullable=False),
    )
    op.bulk_insert(changes, [{"id": 1, "last": 0}])
