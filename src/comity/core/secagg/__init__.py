"""Secure aggregation: the coordinator learns a sum over sites and nothing about any single one."""
