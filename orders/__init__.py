"""Orders: a CD shop whose every step is a message.

     place_order()                         each once, in parallel         whoever is second
    form, admin, replay -> orders.placed -+-> payments  -+-> order processed -> orders.processed
                                          +-> inventory -+                            |
                                                |        |            notifications <-+
                              stock.low <-------+        |              billing-log <-+
                                  |                      |                live page <-+
                               restock      orders.cancelled -> cancelled-orders

The shop imports the public names of `messaging` alone: it is the proof that they are enough.
"""
