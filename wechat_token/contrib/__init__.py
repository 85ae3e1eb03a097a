"""What stands on the engine and is no part of it: pages that use WeChat's JS-SDK (``jssdk``), and drop-ins for other
packages, each a module that needs the package it is named after.
"""
