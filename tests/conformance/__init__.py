"""Runs tables of cases, in the format of tables/README.md, against this project."""
