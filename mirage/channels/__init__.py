"""What a label says of h: beliefs about h given y."""

from mirage.channels.labels import LabelTable, label_table

__all__ = ["LabelTable", "label_table"]
