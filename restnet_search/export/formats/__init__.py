"""Export formats, one module each, behind the interface of :mod:`~restnet_search.export.formats.export_format`.

Imports nothing, so that the packages of one format do not burden another: :data:`restnet_search.registry.FORMATS` finds
a format by its name.
"""
