"""The report of a search: frozen values first, then what renders them. Never imports torch.

Rooms, each of which imports only those before it:

1. ``model``: the frozen report, around the records that the search wrote (:mod:`restnet_search.search.run.records`)
2. ``results_file``: the report as ``results.json`` and ``pareto.csv``, and back
3. ``assemble``: from records to the report; pure functions
4. ``blocks``, ``phrases``: tables, words and figures that all renderers share
5. ``commands``: what commands other than the search print
6. ``figures``: plots, in the terminal and as PNG
7. ``terminal``: the whole report in the terminal
"""
