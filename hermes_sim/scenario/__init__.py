"""YAML files to one frozen, checked Scenario.

yaml_reader -> document -> (names, overrides) -> validate -> checks -> scenario: each step knows only the ones before.
"""
