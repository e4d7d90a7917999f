"""Search each question's shortest right answer: python scripts/search.py recipe=search_llama8b [key=value …]"""

from tale.cli import run
from tale.search.recipe import SearchRecipe
from tale.search.run import run_search

if __name__ == "__main__":
    run(SearchRecipe, run_search, __doc__)
