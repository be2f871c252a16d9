"""The digits of a number, found in a picture.

marks finds ink line by line, extents which digit each pixel belongs to, segment the pieces that may
be digits, judge the cheapest way through them, finder all of that for the service.
"""
