"""Many candidates of one caption: by what should the best of them be chosen?"""
