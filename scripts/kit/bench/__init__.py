"""How fast a /layout-parsing service is: workload.py makes documents, drive.py sends them, figures.py counts, plot.py draws."""
