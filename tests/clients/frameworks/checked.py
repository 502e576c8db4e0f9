"""Report of a framework's program: its classes and what each did.   PROGRAM BASE_URL MODEL"""
import json
import sys
from importlib.metadata import version

base_url, model = sys.argv[1:3]
QUESTION = "Why is the sky blue?"
# The simulated server calls a tool that the last message names, and answers a schema with its simplest value.
ASKS_TOOL = "Please get_weather of Paris"
# The names of the tools by which the frameworks ask for a `City`.
ASKS_CITY = "Answer with City, by final_result"
rows = []


def report(client, package, tried):
    """A row of the table: each of `tried` has passed."""
    rows.append([client, f"{package} {version(package)}", list(tried)])


def finish():
    print(json.dumps(rows))
