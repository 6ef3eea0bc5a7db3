"""Weights of other makers, key by key: one table an origin, read forwards to load and backwards to export."""

from opendalle.pretrained.maps.foreign_form import Field, ForeignForm
from opendalle.pretrained.maps.key_table import KeyTable, Row, layer

__all__ = ["Field", "ForeignForm", "KeyTable", "Row", "layer"]
