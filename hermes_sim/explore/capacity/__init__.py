"""The highest load within the objectives: bracketed, per dollar, per watt."""
