"""The priors of DALL·E 2, compared as the paper compares them, in a world where truth is known."""
